"""The dossier: claims about a model that a stranger can check, and the checks themselves."""
