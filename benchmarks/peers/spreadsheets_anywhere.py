# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "azure-storage-blob==12.31.1", "boto3==1.44.5", "google-cloud-storage==3.17.1", "jsonpath-ng==1.16.0",
#     "openpyxl==3.1.5", "paramiko==5.1.0", "pyarrow==26.0.1", "python-dateutil==2.9.0.post0",
#     "pytz==2026.6", "requests==2.34.2", "singer-python==6.8.0", "smart-open==9.0.2", "voluptuous==0.16.0",
#     "xlrd==2.0.2",
# ]
# ///
"""tap-spreadsheets-anywhere, which reads a workbook that lies in a folder.

PyPI does not have it, and it can't be installed from its repository, as its setup.py lacks a comma between
two requirements. So it is imported from a checkout, and what it imports is named above.
"""

import sys

if __name__ == "__main__":
    sys.path.insert(0, sys.argv.pop(1))
    import dateutil.parser  # noqa: F401 - the tap takes it for granted
    from tap_spreadsheets_anywhere import main

    main()
