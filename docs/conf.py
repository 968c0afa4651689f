"""Settings of the documentation site: `sphinx-build -W docs build/docs` makes it.

What the site needs beyond Sphinx stands in `extensions/`: the notebooks of the tutorials, the
gallery of activations, and the checks that every public name is explained and no tutorial is slow.
"""

import importlib.util
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]

import dcnn  # noqa: E402

# OWNER/NAME at GitHub of the repository whose branch gh-pages holds the built site. Tutorials then
# have a badge that opens them in Colab, and links to source files lead to the branch main there.
# Empty: no badges, and source files are downloads.
repository = ""

project = "dcnn"
version = release = dcnn.__version__
extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx", "sphinx.ext.viewcode",
    "links", "notebooks", "gallery", "mathml", "docstrings", "checks"]
exclude_patterns = ["_generated", "extensions"]

# Pages and tutorials.
myst_enable_extensions = ["dollarmath", "attrs_block", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 120  # seconds for a cell; `checks` has a limit for all cells of a tutorial
nb_execution_show_tb = True
nb_merge_streams = True
# The page on jax-md is run where jax-md is installed; its own dependencies are many.
nb_execution_excludepatterns = [] if importlib.util.find_spec("jax_md") else ["tutorials/jax_md.md"]

# The reference.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings have the shapes and units, in words
autosummary_generate = False
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar, napoleon_attr_annotations = True, False
python_maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"

# A build without a connection takes the empty inventory that `links` writes: names of other
# packages are then no links, and nothing is warned of.
_NONE = str(HERE / "_generated" / "none.inv")
intersphinx_mapping = {name: (address, (None, _NONE)) for name, address in {
    "python": "https://docs.python.org/3",
    "numpy": "https://numpy.org/doc/stable",
    "jax": "https://docs.jax.dev/en/latest",
    "flax": "https://flax-linen.readthedocs.io/en/latest",
    "optax": "https://optax.readthedocs.io/en/latest",
    "ase": "https://ase-lib.org",
}.items()}
intersphinx_timeout = 10

# The look.
html_theme = "sphinx_book_theme"
html_title = "dcnn"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["_generated/files"]
html_show_copyright = False
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "home_page_in_toc": False,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "footer_content_items": [],
    "repository_url": f"https://github.com/{repository}" if repository else "",
    "use_repository_button": bool(repository),
    "pygments_light_style": "tango",
    "pygments_dark_style": "github-dark",
}
