"""`workbench reproduce`: the papers' tables on the bundled teacher."""
