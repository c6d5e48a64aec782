"""A run, stage by stage: demonstrate → screen → train → evaluate → report."""
