"""SurgViVQA: VideoMAE, BLIP's text encoder and GPT-2 (arXiv 2511.03325)."""
