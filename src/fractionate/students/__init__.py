"""From the teacher's demonstrations to a student."""
