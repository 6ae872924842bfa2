"""Reserved for the browser interface; today it holds pictures only."""
