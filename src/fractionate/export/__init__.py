"""A student taken elsewhere: whole weights, GGUF or its adapter, checked, with a model card, and to the hub."""
