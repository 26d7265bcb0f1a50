"""What PyInstaller starts: the command line."""

from appliance.__main__ import main

main()
