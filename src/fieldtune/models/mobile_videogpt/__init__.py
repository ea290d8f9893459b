"""Mobile-VideoGPT (arXiv 2503.21782) in pure PyTorch: a film's frames become embeddings for Qwen2.5."""
