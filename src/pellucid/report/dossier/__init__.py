"""The page of a dossier: read the folder, tie every number to a claim or a file, write."""
