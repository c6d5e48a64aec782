"""Which decomposer × solver pairs there are, and working through them."""
