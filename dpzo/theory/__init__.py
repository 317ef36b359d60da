"""What the theorems say, as functions, and what is exactly so on quadratics. Nothing here looks at data."""
