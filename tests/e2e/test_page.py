"""The page at / in a real browser: Debian's chromium, driven over the WebDriver protocol, of which four calls are enough."""
import http.client
import json
import os
import shutil
import subprocess
import time

from harness import Server, Skip, expect, free_port, temp_dir

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    def __init__(self, profile):
        driver = shutil.which("chromedriver")
        if not driver or not shutil.which("chromium"):
            raise Skip("no chromium and chromedriver here")
        self.port = free_port()
        self.process = subprocess.Popen([driver, f"--port={self.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
        options = {"binary": shutil.which("chromium"), "args": arguments}
        capabilities = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}
        try:
            end = time.monotonic() + 20
            while True:
                try:
                    self.call("GET", "/status")
                    break
                except OSError:
                    expect(time.monotonic() < end, "chromedriver does not answer")
                    time.sleep(0.1)
            self.session = "/session/" + self.call("POST", "/session", {"capabilities": capabilities})["sessionId"]
        except Exception as e:
            self.process.kill()
            self.process.wait()
            raise Skip(f"the browser does not start: {e}") from e

    def call(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request(method, path, json.dumps(body) if body is not None else None, {"content-type": "application/json"})
        value = json.loads(c.getresponse().read())["value"]
        c.close()
        if isinstance(value, dict) and value.get("error"):
            raise AssertionError(value["message"].split("\n")[0])
        return value

    def open(self, url):
        self.call("POST", self.session + "/url", {"url": url})

    def js(self, script, *args):
        return self.call("POST", self.session + "/execute/sync", {"script": script, "args": list(args)})

    def type(self, css, text):
        found = self.call("POST", self.session + "/element", {"using": "css selector", "value": css})
        self.call("POST", f"{self.session}/element/{found[ELEMENT]}/value", {"text": text})

    def log(self, kind):
        return self.call("POST", self.session + "/se/log", {"type": kind})

    def close(self):
        try:
            self.call("DELETE", self.session)
        finally:
            self.process.kill()
            self.process.wait()


def wait_for(browser, script, what, seconds=30):
    end = time.monotonic() + seconds
    while not browser.js(script):
        expect(time.monotonic() < end, lambda: f"{what}: {browser.js('return document.body.innerText')[:400]!r}")
        time.sleep(0.1)


def test_chat_in_the_page():
    with temp_dir() as d, Server(os.path.join(d, "data")) as s:
        browser = Browser(os.path.join(d, "profile"))
        try:
            browser.open(s.url + "/")
            wait_for(browser, "return document.body.innerText.includes('memo-28m')", "the model's name")
            browser.type("textarea", "Who are you?\ue007")
            wait_for(browser, "return document.body.innerText.includes('I am Memo')", "the answer")
            wait_for(browser, "return /hot|warm|cold/.test(document.body.innerText)", "the tier")
            expect(len(s.agents()) == 1, s.agents())
            wait_for(browser, "return document.body.innerText.includes(arguments[0] || '%s')" % list(s.agents())[0], "the agent in the list")
            asked = [json.loads(e["message"])["message"] for e in browser.log("performance")]
            urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
            outside = [u for u in urls if not u.startswith((s.url, "data:", "blob:", "chrome"))]
            expect(urls and not outside, f"requests to elsewhere: {outside}")
            bad = [e["message"] for e in browser.log("browser") if e["level"] == "SEVERE" and "favicon" not in e["message"]]
            expect(not bad, bad)
        finally:
            browser.close()
