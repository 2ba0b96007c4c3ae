"""Takes the picture of the demo's report that the README shows.

    make demo && make picture

Needs chromium and chromedriver (`apt-get install chromium-driver`).
"""

import argparse
import base64
import io
import shutil
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WIDTH, HEIGHT = 1280, 1650


def main() -> None:
    """Open the page and keep its beginning."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=Path("out/demo/report.html"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/report.png"))
    args = parser.parse_args()
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(args.page.resolve().as_uri())
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": 1}
        data = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})["data"]
    finally:
        driver.quit()
    # 256 colours suffice for text and lines, and make a third of the file.
    picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").quantize(256)
    picture.save(args.picture, optimize=True)
    print(f"{args.picture}, {args.picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
