"""Makes crystal generators: corpus, recipes, engine, checkpoints, export."""
