//! A headless Chromium or Firefox, driven over WebDriver (the W3C protocol, HTTP and JSON).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

#[cfg(target_os = "linux")]
use crate::netns::Host;
use crate::wait::until;

/// Where elements' ids are in answers, as the protocol says.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// A browser is up within this.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A file of these tests is saved within this.
const SAVE_LIMIT: Duration = Duration::from_secs(30);

/// Whose browser it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// Chromium, with chromedriver.
    Chromium,
    /// Debian's Firefox, with geckodriver.
    Firefox,
}

/// A browser with one page. Ends when dropped.
#[derive(Debug)]
pub struct Browser {
    /// Whose it is.
    pub maker: Maker,
    driver: Driver,
    session: String,
}

#[derive(Debug)]
struct Driver {
    child: Child,
    url: String,
    dir: TempDir,
    #[cfg(target_os = "linux")]
    host: Option<Host>,
}

impl Browser {
    /// Chromium on a host of a test network.
    #[cfg(target_os = "linux")]
    pub fn on(host: &Host) -> Self {
        Self::start(Maker::Chromium, None, Some(host.clone()))
    }

    /// A browser of either maker on a host of a test network.
    #[cfg(target_os = "linux")]
    pub fn of(maker: Maker, host: &Host) -> Self {
        Self::start(maker, None, Some(host.clone()))
    }

    /// Chromium on a host of a test network, where a person has installed this certificate authority (DER).
    #[cfg(target_os = "linux")]
    pub fn trusting(host: &Host, authority: &[u8]) -> Self {
        Self::start(Maker::Chromium, Some(authority), Some(host.clone()))
    }

    /// Chromium on this machine.
    pub fn here() -> Self {
        Self::start(
            Maker::Chromium,
            None,
            #[cfg(target_os = "linux")]
            None,
        )
    }

    fn start(
        maker: Maker,
        authority: Option<&[u8]>,
        #[cfg(target_os = "linux")] host: Option<Host>,
    ) -> Self {
        let dir = TempDir::with_prefix("gemmesh-browser-").expect("a temporary directory");
        if let Some(authority) = authority {
            trust(dir.path(), authority);
        }
        let log = dir.path().join("driver.log");
        let mut command = maker.driver();
        let file = || File::options().create(true).append(true).open(&log);
        command
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(file().expect("a file for its output"))
            .stderr(file().expect("a file for its output"));
        #[cfg(target_os = "linux")]
        let child = match &host {
            Some(host) => host.run(|| command.spawn()),
            None => command.spawn(),
        };
        #[cfg(not(target_os = "linux"))]
        let child = command.spawn();
        let mut driver = Driver {
            child: child.expect("the driver starts: `make test` installs it"),
            url: String::new(),
            dir,
            #[cfg(target_os = "linux")]
            host,
        };
        let port = until("the driver to listen", START_LIMIT, || {
            let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
            maker.port(&text).ok_or(text)
        });
        driver.url = format!("http://127.0.0.1:{port}");
        let wanted = maker.capabilities(driver.dir.path());
        let answer = driver.call("POST", "/session", &wanted);
        let session = answer["sessionId"].as_str().expect("a session").to_owned();
        let browser = Self {
            maker,
            driver,
            session,
        };
        let size = json!({"width": 1280, "height": 1600});
        browser.call("POST", "window/rect", &size);
        browser
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.call("POST", "url", &json!({ "url": url }));
    }

    /// Runs a function body in the page; `arguments` are its arguments.
    pub fn script(&self, body: &str, arguments: &[Value]) -> Value {
        self.call(
            "POST",
            "execute/sync",
            &json!({"script": body, "args": arguments}),
        )
    }

    /// Clicks, as a person would: the element must be there and visible.
    pub fn click(&self, css: &str) {
        let element = self.find(css);
        self.call("POST", &format!("element/{element}/click"), &json!({}));
    }

    /// Replaces what is in a field.
    pub fn fill(&self, css: &str, text: &str) {
        let element = self.find(css);
        self.call("POST", &format!("element/{element}/clear"), &json!({}));
        self.call(
            "POST",
            &format!("element/{element}/value"),
            &json!({ "text": text }),
        );
    }

    /// The visible text of an element.
    pub fn text(&self, css: &str) -> String {
        let element = self.find(css);
        let text = self.call("GET", &format!("element/{element}/text"), &Value::Null);
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until `script` returns something true, and returns it.
    ///
    /// # Panics
    /// When it has not in time; what the page has logged is printed.
    #[track_caller]
    pub fn await_script(&self, what: &str, limit: Duration, script: &str) -> Value {
        until(what, limit, || {
            let value = self.script(script, &[]);
            let truthy = !matches!(value, Value::Null | Value::Bool(false))
                && value.as_str() != Some("")
                && value.as_f64() != Some(0.0);
            if truthy {
                Ok(value)
            } else {
                Err(format!(
                    "{value}; the page says {:?}; its log: {}",
                    self.page_text(),
                    self.log()
                ))
            }
        })
    }

    /// All the text that the page shows.
    pub fn page_text(&self) -> String {
        let text = self.script("return document.body ? document.body.innerText : ''", &[]);
        text.as_str().unwrap_or_default().to_owned()
    }

    /// What the page has complained of since the last look; of Firefox, which has no call for that, since it
    /// started.
    pub fn log(&self) -> String {
        if self.maker == Maker::Firefox {
            let log = fs::read_to_string(self.driver.dir.path().join("driver.log"));
            let log = log.unwrap_or_default();
            // Firefox complains of itself, too.
            let of_page = |line: &&str| {
                line.starts_with("JavaScript error: http://")
                    || line.starts_with("Content-Security-Policy")
            };
            return log.lines().filter(of_page).collect::<Vec<_>>().join("\n");
        }
        let entries = self.call("POST", "se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let messages = entries.iter().filter_map(|entry| entry["message"].as_str());
        messages.collect::<Vec<_>>().join("\n")
    }

    /// Clicks a link that saves a file, and returns the file.
    ///
    /// # Panics
    /// When it is not saved in time.
    #[track_caller]
    pub fn download(&self, css: &str) -> Vec<u8> {
        let place = self.driver.dir.path().join("downloads");
        if self.maker == Maker::Chromium {
            let place = json!({"behavior": "allow", "downloadPath": place});
            self.chromium("Browser.setDownloadBehavior", &place);
        }
        self.click(css);
        until("the file to be saved", SAVE_LIMIT, || {
            let files = fs::read_dir(&place).map_err(|error| error.to_string())?;
            let files: Vec<_> = files.flatten().map(|entry| entry.path()).collect();
            // While it comes it has, in one browser or the other, another name or an empty namesake.
            let coming = |path: &PathBuf| {
                let ending = path.extension().unwrap_or_default();
                ending == "part" || ending == "crdownload"
            };
            match files.as_slice() {
                [file] if !coming(file) => {
                    let bytes = fs::read(file).map_err(|error| error.to_string())?;
                    let whole = (!bytes.is_empty()).then_some(bytes);
                    whole.ok_or("an empty file".to_owned())
                }
                _ => Err(format!("{files:?}")),
            }
        })
    }

    /// Makes the page this many CSS pixels large, light or dark; a narrow one has two pixels for each, as
    /// phones have. Chromium alone can.
    pub fn show_as(&self, width: u32, height: u32, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        self.chromium(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": if width < 600 { 2 } else { 1 }, "mobile": false}),
        );
        self.chromium("Emulation.setScrollbarsHidden", &json!({"hidden": true}));
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.chromium(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [feature] }),
        );
    }

    /// A call of Chromium's own protocol.
    pub fn chromium(&self, method: &str, params: &Value) -> Value {
        let call = json!({"cmd": method, "params": params});
        self.call("POST", "goog/cdp/execute", &call)
    }

    /// The page from its top, as PNG, as far as it goes. Chromium alone can.
    ///
    /// # Panics
    /// When there is none.
    pub fn picture(&self) -> Vec<u8> {
        let size = "const { scrollWidth, scrollHeight } = document.documentElement; \
            return { x: 0, y: 0, width: scrollWidth, height: Math.min(scrollHeight, 6000), scale: 1 }";
        let clip = self.script(size, &[]);
        let whole = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let picture = self.chromium("Page.captureScreenshot", &whole);
        base64(picture["data"].as_str().expect("a picture"))
    }

    fn find(&self, css: &str) -> String {
        let query = json!({"using": "css selector", "value": css});
        let found = self.call("POST", "element", &query);
        found[ELEMENT]
            .as_str()
            .unwrap_or_else(|| panic!("{css}: {found}"))
            .to_owned()
    }

    #[track_caller]
    fn call(&self, method: &str, command: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        self.driver.call(method, &path, body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.driver.try_call(
                "POST",
                &format!("/session/{}/se/log", self.session),
                &json!({"type": "browser"}),
            );
            eprintln!("--- log of the page ---\n{log:?}");
        }
        let _ = self.driver.try_call(
            "DELETE",
            &format!("/session/{}", self.session),
            &Value::Null,
        );
    }
}

impl Maker {
    /// What drives its browser, on a port of its choice.
    fn driver(self) -> Command {
        match self {
            Self::Chromium => {
                let mut command = Command::new("chromedriver");
                command.arg("--port=0");
                command
            }
            Self::Firefox => {
                // Where scripts/bootstrap.sh builds it.
                let built = crate::root().join(".cache/tools/bin/geckodriver");
                let mut command = Command::new(if built.exists() {
                    built.as_os_str()
                } else {
                    "geckodriver".as_ref()
                });
                command.args(["--port=0", "--log=info"]);
                command
            }
        }
    }

    /// The port that the driver says it listens on.
    fn port(self, log: &str) -> Option<u16> {
        let before = match self {
            Self::Chromium => "started successfully on port ",
            Self::Firefox => "Listening on 127.0.0.1:",
        };
        let rest = log.split(before).nth(1)?;
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest[..end].parse().ok()
    }

    fn capabilities(self, dir: &Path) -> Value {
        let wanted = match self {
            Self::Chromium => {
                let arguments = [
                    "--headless=new",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-quic",
                    "--disable-dev-shm-usage",
                    "--no-first-run",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--disable-sync",
                    // Test machines have no display to look away from; pages must not be slowed down.
                    "--disable-background-timer-throttling",
                ];
                let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
                arguments.push(format!("--user-data-dir={}", dir.join("profile").display()));
                json!({
                    "browserName": "chrome",
                    "goog:chromeOptions": {"args": arguments},
                    "goog:loggingPrefs": {"browser": "ALL"},
                })
            }
            Self::Firefox => json!({
                "browserName": "firefox",
                "moz:firefoxOptions": {
                    "args": ["-headless"],
                    "prefs": {
                        // What the page logs goes to the driver's output.
                        "devtools.console.stdout.content": true,
                        // It asks nobody for anything; the test networks lead nowhere anyway.
                        "app.update.disabledForTesting": true,
                        "browser.download.folderList": 2,
                        "browser.download.dir": dir.join("downloads"),
                        "browser.download.alwaysOpenPanel": false,
                        "datareporting.policy.dataSubmissionEnabled": false,
                        "network.captive-portal-service.enabled": false,
                        "network.connectivity-service.enabled": false,
                        "services.settings.server": "http://127.0.0.1:1",
                    },
                },
            }),
        };
        json!({"capabilities": {"alwaysMatch": wanted}})
    }
}

/// Puts a certificate authority among those that the person with this home directory trusts.
fn trust(home: &Path, authority: &[u8]) {
    let database = home.join(".pki/nssdb");
    fs::create_dir_all(&database).expect("a directory of ours");
    let certificate = home.join("ca.crt");
    fs::write(&certificate, authority).expect("a directory of ours");
    let database = format!("sql:{}", database.display());
    let run = |arguments: &[&str]| {
        let mut command = Command::new("certutil");
        command.args(["-d", &database]).args(arguments);
        let done = command
            .output()
            .expect("certutil starts: `make test` installs it");
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command:?}: {errors}");
    };
    run(&["-N", "--empty-password"]);
    let file = certificate.display().to_string();
    run(&["-A", "-n", "gemmesh", "-t", "C,,", "-i", &file]);
}

/// The bytes behind a base64 text with padding.
fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("no base64"),
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(value).collect();
    let group = |group: &[u8]| {
        let bits = group
            .iter()
            .fold(0u32, |bits, six| bits << 6 | u32::from(*six));
        let bits = bits << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

impl Driver {
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body)
            .unwrap_or_else(|error| panic!("WebDriver {method} {path} {body}: {error}"))
    }

    fn try_call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let send = || {
            let client = reqwest::blocking::Client::builder()
                .timeout(Duration::from_secs(120))
                .no_proxy()
                .build()
                .map_err(|error| format!("{error:?}"))?;
            let url = format!("{}{path}", self.url);
            let mut request = client.request(method.parse().expect("a method"), url);
            if !body.is_null() {
                request = request.json(body);
            }
            let answer: Value = request
                .send()
                .and_then(|r| r.json())
                .map_err(|e| format!("{e:?}"))?;
            let value = &answer["value"];
            match value["error"].as_str() {
                Some(error) => Err(format!("{error}: {}", value["message"])),
                None => Ok(value.clone()),
            }
        };
        #[cfg(target_os = "linux")]
        if let Some(host) = &self.host {
            return host.run(send);
        }
        send()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The browser ends with its driver once its session is deleted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
