"""Describe an artifact in a model card, and push it to the Hugging Face hub.

The card is made from the manifest alone: no network is built for it. May import what ``pipeline`` may. Read
``model_card.py`` first; ``hub.py`` pushes.
"""
