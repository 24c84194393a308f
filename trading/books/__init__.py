"""Order books: how frames become a book, and what proves that it is right."""
