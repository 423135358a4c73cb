"""The clients' data as text, figure and page."""
