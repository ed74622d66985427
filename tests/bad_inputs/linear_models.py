"""Commands of pseudobulk samples and linear models."""

import numpy as np

from bad_inputs.making import cases, cut, h5

# fmt: off
PSEUDOBULK = cases(
    ("store that is not there", "pseudobulk nowhere.zarr new.h5ad --by guide --scheduler {scheduler}", "there is no count store at nowhere.zarr"),
    ("text in place of a store", "pseudobulk genes.txt new.h5ad --by guide --scheduler {scheduler}", "genes.txt is not a Zarr store"),
    ("empty path of samples", "pseudobulk counts.zarr '' --by guide", "Invalid value for 'OUT': expected the path"),
    ("unknown suffix", "pseudobulk counts.zarr new.txt --by guide", "'.txt' is not one of '.h5ad', '.zarr'"),
    ("unknown column", "pseudobulk counts.zarr new.h5ad --by guide,plat --scheduler {scheduler}", "no column 'plat' in the table of cells; there is 'guide', 'batch', 'plate', 'well', 'depth', 'gaps'; did you mean 'plate'?"),
    ("column named twice", "pseudobulk counts.zarr new.h5ad --by guide,guide --scheduler {scheduler}", "the column 'guide' more than once"),
    ("no column", "pseudobulk counts.zarr new.h5ad --by , --scheduler {scheduler}", "expected one column or more to group cells by, found none"),
    ("file that is there", "pseudobulk counts.zarr counts.h5ad --by guide", "counts.h5ad is already there"),
    ("file in no folder", "pseudobulk counts.zarr no/new.h5ad --by guide", "no to write new.h5ad into"),
    ("samples too small", "pseudobulk counts.zarr new.h5ad --by guide --min-cells 99 --scheduler {scheduler}", "no sample by 'guide' has 99 cells"),
    ("no cells", "pseudobulk counts.zarr new.h5ad --by guide --min-cells 0", "Invalid value for '--min-cells'"),
    ("truncated counts", "pseudobulk counts.zarr new.h5ad --by guide --scheduler {scheduler}", "counts.zarr", cut("counts.zarr/X/data/c/0")),
    ("store for the output inside the input", "pseudobulk counts.zarr counts.zarr/new.zarr --by guide --scheduler {scheduler}", "inside"),
)

VOOMA = cases(
    ("empty path of results", "vooma samples.h5ad -o '' --design ~arm --overwrite", "Invalid value for '--output' / '-o': expected the path"),
    ("nothing there", "vooma nowhere.h5ad -o new --design ~arm", "there is no file or store at nowhere.h5ad"),
    ("text", "vooma genes.txt -o new --design ~arm", "genes.txt is neither an .h5ad file nor a Zarr store"),
    ("truncated HDF5", "vooma samples.h5ad -o new --design ~arm", "samples.h5ad", cut("samples.h5ad")),
    ("HDF5 of something else", "vooma filtered.h5 -o new --design ~arm", "filtered.h5"),
    ("folder that is there", "vooma samples.h5ad -o plain --design ~arm", "plain is already there; give another name"),
    ("folder in no folder", "vooma samples.h5ad -o no/new --design ~arm", "no to write new into"),
    ("unknown column", "vooma samples.h5ad -o new --design ~arn --scheduler {scheduler}", "did you mean 'arm'?"),
    ("formula that is none", "vooma samples.h5ad -o new --design ~arm+ --scheduler {scheduler}", "arm+"),
    ("formula that runs", "vooma samples.h5ad -o new --design ~open('x','w') --scheduler {scheduler}", "open"),
    ("more coefficients than samples", "vooma samples.h5ad -o new --design ~C(age) --scheduler {scheduler}", "samples"),
    ("unknown block", "vooma samples.h5ad -o new --design ~arm --block dnor", "--block 'dnor' is not one of 'arm', 'donor', 'age'; did you mean 'donor'?"),
    ("unknown layer", "vooma samples.h5ad -o new --design ~arm --layer z", "no layer 'z'"),
    ("unknown coefficient", "vooma samples.h5ad -o new --design ~arm --contrast arm_w --scheduler {scheduler}", "there is no coefficient 'arm_w'; there is 'Intercept', 'arm_v'; did you mean 'arm_v'?"),
    ("contrasts of one name", "vooma samples.h5ad -o new --design ~arm --contrast A=arm_v --contrast A=-arm_v", "two contrasts (--contrast) have the name 'A'; give each"),
    ("contrast without a name", "vooma samples.h5ad -o new --design ~arm --contrast =arm_v", "--contrast '=arm_v' lacks a name or an expression"),
    ("contrast without an expression", "vooma samples.h5ad -o new --design ~arm --contrast A=", "--contrast 'A=' lacks a name or an expression"),
    ("NaN in the data", "vooma samples.h5ad -o new --design ~arm --scheduler {scheduler}", "", h5("samples.h5ad", "X", lambda values: values * np.nan)),
    ("words in the data", "vooma samples.h5ad -o new --design ~arm --scheduler {scheduler}", "samples.h5ad", h5("samples.h5ad", "X", lambda values: np.full(values.shape, b"word"))),
    ("data without X", "vooma samples.h5ad -o new --design ~arm --scheduler {scheduler}", "samples.h5ad", h5("samples.h5ad", "X")),
)
# fmt: on
