"""Published data sets by name: where they can be had, and what their files must be.

A line of these tables stands here only if its addresses and checksums are evidenced. The evidence,
and the sets that were left out for want of it, are listed in BUILD_NOTES.md, "Data by name".
"""

import re
from types import MappingProxyType
from typing import NamedTuple

from dcnn.base.text import unknown


class Mirror(NamedTuple):
  """A place that a file can be had from.

  Attributes:
    url: The address.
    checksum: What the file at the address must hash to, as `sha256:HEX` or `md5:HEX`; of an archive
      that of the archive.
    size: Size of what the address gives, in bytes; 0 where it is not known.
    archive: The name in the cache of the archive that the address gives; empty where it gives the
      file itself.
    member: The name of the wanted file in that archive.
  """

  url: str
  checksum: str
  size: int = 0
  archive: str = ""
  member: str = ""


class File(NamedTuple):
  """A file that is kept in the cache.

  Attributes:
    name: Its name in the cache, with the folder of its family.
    mirrors: The places that it can be had from, in the order in which they are asked.
  """

  name: str
  mirrors: tuple[Mirror, ...]


class PublishedSplit(NamedTuple):
  """Two lists of frame numbers that its authors published with a data set.

  Attributes:
    train: The file of the numbers of the training frames.
    test: The file of the numbers of the test frames.
  """

  train: File
  test: File


class NamedSet(NamedTuple):
  """A published data set.

  Attributes:
    file: The file of its configurations.
    units: Its units, a name in `units.UNITS`.
    reference: The paper to cite.
    format: The reader of the file, as the argument `format` of `load`.
    splits: The published splits, in their order; empty where there are none.
  """

  file: File
  units: str
  reference: str
  format: str
  splits: tuple[PublishedSplit, ...] = ()


_FIGSHARE = "https://ndownloader.figshare.com/files/"

_RMD17_ARCHIVE_SHA256 = "sha256:cddeea2ec2c4b22a9de16a9a65a3eeedac5b29da9c99c20bbff0153912bf922b"
_RMD17_ARCHIVE_SIZE = 1_066_301_513
# Each set as a file of its own: its number on figshare, and the MD5 that figshare publishes.
_RMD17 = {
    "aspirin": ("rmd17_aspirin.npz", 62265757, "17fd6fb69066888613f7e16b358a7553"),
    "azobenzene": ("rmd17_azobenzene.npz", 62265754, "be79df918468eb3579aa73a0becf7390"),
    "benzene": ("rmd17_benzene.npz", 62265739, "18c9242bc90fbf28215f6dd81e650f16"),
    "ethanol": ("rmd17_ethanol.npz", 62265733, "eb837fb8deb27d4e0d52f71a03aff776"),
    "malonaldehyde": ("rmd17_malonaldehyde.npz", 62265736, "cdc1d70c0c34062ddde6e5071eb6fe21"),
    "naphthalene": ("rmd17_naphthalene.npz", 62265751, "0efba19c9907e3852318b1e6008b3b9e"),
    "paracetamol": ("rmd17_paracetamol.npz", 62265760, "ba10784f7b67635427085f6d7ec2dd97"),
    "salicylic_acid": ("rmd17_salicylic.npz", 62265748, "900fedf242da438400fa4293348d7dd1"),
    "toluene": ("rmd17_toluene.npz", 62265742, "0f2913d51f8149c90ab28d697a076f64"),
    "uracil": ("rmd17_uracil.npz", 62265745, "992a4479c28a07e0cce6da964805be31"),
}
# The five splits in the same way, training and test: 1,000 frame numbers each, for all molecules.
_RMD17_SPLITS = (
    ((62265793, "22264dcf2e42d6133362411abbbe4ce8"),
     (62265781, "124c8a0849e84e244d6ce8424e1c05cf")),
    ((62265772, "28dbc9a3d5e7c47e653b1cc01809df35"),
     (62265769, "9dc098724c1680daca038b785ee4f602")),
    ((62265775, "8de68b1b288c790e633c9d05ff5f04dd"),
     (62265787, "fd96f4623291dc23dd80b24dd634ca0b")),
    ((62265766, "3764257abf8121a0905f364468ba83da"),
     (62265790, "f0acce759fa4fe46b3a0b2a450e7e260")),
    ((62265778, "4670362bd554c9c22581c936432236b3"),
     (62265784, "4892da12e88a3c30c9a15f1f95e6eaac")),
)


def _rmd17_file(name: str, folder: str, number: int, md5: str) -> File:
  """A file of rMD17: by itself from figshare, or out of the archive of all, from two places."""
  archives = ("https://archive.materialscloud.org/records/pfffs-fff86/files/rmd17.tar.bz2",
              f"{_FIGSHARE}23950376")
  return File(f"rmd17/{name}", (
      Mirror(f"{_FIGSHARE}{number}", f"md5:{md5}"),
      *(Mirror(url, _RMD17_ARCHIVE_SHA256, _RMD17_ARCHIVE_SIZE, "rmd17.tar.bz2",
               f"rmd17/{folder}/{name}") for url in archives)))


def _rmd17_sets() -> dict[str, NamedSet]:
  splits = tuple(
      PublishedSplit(_rmd17_file(f"index_train_{i:02}.csv", "splits", *train),
                     _rmd17_file(f"index_test_{i:02}.csv", "splits", *test))
      for i, (train, test) in enumerate(_RMD17_SPLITS, start=1))
  reference = ("A. S. Christensen and O. A. von Lilienfeld, Mach. Learn.: Sci. Technol. 1 (2020) "
               "045018")
  return {f"rmd17/{molecule}": NamedSet(_rmd17_file(name, "npz_data", number, md5),
                                        "kcal/mol/angstrom", reference, "npz", splits)
          for molecule, (name, number, md5) in _RMD17.items()}


# The files `md17_NAME.npz` of the authors, which others keep as `NAME_dft.npz`; only those whose
# checksum is evidenced.
_MD17 = {
    "aspirin": ("aspirin", "af4ce531bf8cf07610c0bd876cb5b321f3c301d2365720967d98d45e1db1f748"),
    "malonaldehyde": (
        "malonaldehyde", "42563daf9cdb84079bb9c44657a17316a87382ca848ab63a62bfd704cf14f48d"),
    "salicylic_acid": (
        "salicylic", "1f991c1d2d7cf4b8f52eea062ecf68ce51521f2af77d6ff60530555c94a30e94"),
    "toluene": ("toluene", "4befe3562724e234f3cc70984168d400b229d12d393d4b0c0423ccdffd8d3ec5"),
}


def _md17_sets() -> dict[str, NamedSet]:
  copy = ("https://huggingface.co/datasets/chao1224/Geom3D_data/resolve/"
          "a169e9d90a9000a37e53b2325a65807ff3641f5a/MD17")
  return {f"md17/{molecule}": NamedSet(
      File(f"md17/md17_{stem}.npz", tuple(Mirror(url, f"sha256:{sha256}") for url in (
          f"https://sgdml.org/secure_proxy.php?file=data/npz/md17_{stem}.npz",
          f"http://www.quantum-machine.org/gdml/data/npz/md17_{stem}.npz",
          f"{copy}/{stem}/raw/{stem}_dft.npz"))),
      "kcal/mol/angstrom", "S. Chmiela et al., Sci. Adv. 3 (2017) e1603015", "npz")
          for molecule, (stem, sha256) in _MD17.items()}


_QM9_SHA256 = "sha256:3a63848ac80691bdb8d41834b575afad345b9300d7a2db0c38adb7f6eaa8360c"

SETS = MappingProxyType({
    **_rmd17_sets(),
    **_md17_sets(),
    "qm9": NamedSet(
        File("qm9/dsgdb9nsd.xyz.tar.bz2", tuple(
            Mirror(url, _QM9_SHA256, 86_144_227) for url in (
                f"{_FIGSHARE}3195389",
                "https://springernature.figshare.com/ndownloader/files/3195389",
                "https://s3-eu-west-1.amazonaws.com/pstorage-npg-968563215/3195389/"
                "dsgdb9nsd.xyz.tar.bz2"))),
        "hartree/angstrom", "R. Ramakrishnan et al., Sci. Data 1 (2014) 140022", "qm9"),
})

# Families of which dcnn knows where they are, and not what their files must hash to.
ELSEWHERE = MappingProxyType({
    "md17": "https://www.sgdml.org/#datasets",
    "md22": "https://www.sgdml.org/#datasets",
    "3bpa": "https://github.com/davkovacs/BOTNet-datasets",
})


def explain_missing(name: str) -> str:
  """Why a name is none of `SETS`, where it looks like one; else nothing.

  Args:
    name: What was given in place of a file that exists.

  >>> explain_missing("rmd17/etanol")[:60]
  "unknown data set 'rmd17/etanol': did you mean 'rmd17/ethanol"
  >>> explain_missing("folder/file.npz")
  ''
  """
  if re.search(r"\.\w+$", name):  # a file, whose folder has the name of a family
    return ""
  family = name.lower().partition("/")[0]
  relatives = [known for known in SETS if known.partition("/")[0] == family]
  if family in ELSEWHERE:
    others = f" (it knows those of {', '.join(relatives)} alone)" if relatives else ""
    return (f"{name} is not fetched by name, because dcnn knows no checksum of its file{others}: "
            f"get it from {ELSEWHERE[family]} and give the path of the file")
  return unknown("data set", name, relatives) if relatives else ""
