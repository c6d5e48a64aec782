"""Models, one file each: any OpenAI-compatible server, local weights, recorded outputs, an echo."""
