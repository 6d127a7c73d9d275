"""A dossier in other tools' words: model card, RO-Crate, Croissant, Inspect; a file each."""
