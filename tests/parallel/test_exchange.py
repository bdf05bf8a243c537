"""How ranks exchange arrays, wherever these lie."""

from __future__ import annotations

import pickle

import numpy as np
from mpi_jobs import job, mpi, relative_difference


@mpi
def test_arrays_on_a_gpu_take_the_same_path(tmp_path):
    """On the stand-in for CuPy: through the CPU's memory, and straight from the GPU's."""
    status, _, err = job(2, "device", tmp_path / "found")
    assert status == 0, err
    done = pickle.loads((tmp_path / "found").read_bytes())
    expected = done["found"].pop("cpu")
    for found in done["found"].values():
        np.testing.assert_allclose(found["steps"], expected["steps"], rtol=1e-10)
        assert relative_difference(found["weights"], expected["weights"]) <= 1e-10
        assert found["answers"] == expected["answers"]
    assert done["ways"]["host"] == {"ndarray"}
    # "ndarray" for Adam's state_dict
    assert done["ways"]["straight"] == {"DeviceArray", "ndarray"}
