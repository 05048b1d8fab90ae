"""Files: their names in headers, and the form in which servers hand them to each other."""
