"""Problems whose answers are known, and the experiments on them."""
