"""Text to checked token streams: corpora, tokenizers, shards, loaders, validation sets."""
