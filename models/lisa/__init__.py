"""LISA: LLaVA answers with `[SEG]` tokens, and SAM draws a mask for each (arXiv 2308.00692)."""
