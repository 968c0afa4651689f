"""The results that README and the experiments speak of, and the sentences that are made of them."""
