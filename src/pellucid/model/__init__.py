"""The decoder (Llama, Qwen2 and Qwen3 families), its weights, its tokenizer and its export."""
