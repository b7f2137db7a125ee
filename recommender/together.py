"""Which of the hosts that train a model together this process is. It is set before TensorFlow is there: see `jobs/hosts.py`."""

joined = False
"""Whether `recommender.tensorflow` is to wait for the hosts that TF_CONFIG names, and to be one of them."""
first = True
"""Whether this one keeps what is made."""
