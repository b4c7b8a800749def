"""How the pipelines' networks are trained and measured; torch lives here."""
