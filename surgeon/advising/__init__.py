"""How to fine-tune a network for data at hand: what its features are worth there, and the recipe that follows."""
