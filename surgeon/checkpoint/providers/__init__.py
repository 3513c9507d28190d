"""What builds networks by name: torchvision, transformers, and a user's own functions."""
