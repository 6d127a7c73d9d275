"""The report page of a run: read the folder (`read`), draw (`figures`), write the page (`page`)."""
