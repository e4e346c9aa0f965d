"""The artifact: one file of bytes that holds all there is to a trained model."""
