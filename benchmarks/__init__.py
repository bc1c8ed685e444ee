"""Speed and memory, ours and the peers' in turn: `python -m benchmarks.NAME --help` has the flags.

    backbone   networks to feature maps, against torch
    fit        choosing a bank, and images to bank, against a plain loop and anomalib
    predict    coding patches, drawing maps, image bytes to maps, against anomalib, FAISS and others
    loading    reading images with threads and with worker processes, beside embedding them
    metrics    evaluating a test set, against anomalib, adeval and scikit-learn
    memory     peak resident size of whole runs, by the number of images
    scaling    what many devices cost: a model, its predictions, fake devices; no peers
    sweep      a grid of 24 points, against as many separate runs
    startup    time and memory to the help text, to the import and to the first result
    accelerator   every stage on a GPU or TPU, against what the device reaches; no peers

Each prints a table and, with --json=FILE, writes every figure. `python -m benchmarks.install_peers`
makes the virtual environment of the peers; --peers=DIR/bin/python uses it. Without it ours is timed
alone. To measure on one core: `taskset -c 0 python -m benchmarks.NAME`.
"""
