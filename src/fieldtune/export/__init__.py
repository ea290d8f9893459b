"""A finished run as files that other programs read: PEFT, transformers, torch, llama.cpp, Ollama."""
