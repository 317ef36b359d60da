"""Models that offer per-record losses: a quadratic with known answers, any torch module, prompted language models."""
