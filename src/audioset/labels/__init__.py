"""Labels, their ontology, events, and tables of labelled recordings."""
