"""Fine-tuning: settings, data, losses and the loop, on the transformers Trainer."""
