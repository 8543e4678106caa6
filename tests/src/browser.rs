//! A headless Chromium, driven over WebDriver (the W3C protocol, HTTP and JSON).

use std::fs::{self, File};
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

/// A browser with one page. Ends when dropped.
#[derive(Debug)]
pub struct Browser {
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
    /// A browser on a host of a test network.
    #[cfg(target_os = "linux")]
    pub fn on(host: &Host) -> Self {
        Self::start(Some(host.clone()))
    }

    /// A browser on this machine.
    pub fn here() -> Self {
        Self::start(
            #[cfg(target_os = "linux")]
            None,
        )
    }

    fn start(#[cfg(target_os = "linux")] host: Option<Host>) -> Self {
        let dir = TempDir::with_prefix("gemmesh-browser-").expect("a temporary directory");
        let log = dir.path().join("chromedriver.log");
        let mut command = Command::new("chromedriver");
        command
            .arg("--port=0")
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(File::create(&log).expect("a file for its output"))
            .stderr(Stdio::null());
        #[cfg(target_os = "linux")]
        let child = match &host {
            Some(host) => host.run(|| command.spawn()),
            None => command.spawn(),
        };
        #[cfg(not(target_os = "linux"))]
        let child = command.spawn();
        let mut driver = Driver {
            child: child.expect("chromedriver starts: `make test` installs it"),
            url: String::new(),
            dir,
            #[cfg(target_os = "linux")]
            host,
        };
        let port = until("chromedriver to listen", START_LIMIT, || {
            let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
            let port = text.split("started successfully on port ").nth(1);
            let port = port
                .and_then(|rest| rest.split('.').next())
                .map(str::to_owned);
            port.ok_or(text)
        });
        driver.url = format!("http://127.0.0.1:{port}");
        let profile = driver.dir.path().join("profile");
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
            "--window-size=1280,1600",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let answer = driver.call("POST", "/session", &capabilities);
        let session = answer["sessionId"].as_str().expect("a session").to_owned();
        Self { driver, session }
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

    /// What the page has logged since the last look.
    pub fn log(&self) -> String {
        let entries = self.call("POST", "se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let messages = entries.iter().filter_map(|entry| entry["message"].as_str());
        messages.collect::<Vec<_>>().join("\n")
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
