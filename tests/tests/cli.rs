//! The program as a person at a terminal uses it: what it prints and how it ends.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use gemmesh_tests::matrices::Matrix;
#[cfg(target_os = "linux")]
use gemmesh_tests::node::JOB_LIMIT;
use gemmesh_tests::node::{Node, Options, fresh_mesh};
#[cfg(target_os = "linux")]
use gemmesh_tests::wait::until;
use serde_json::Value;
use tempfile::TempDir;

/// A directory with files, and an environment in which no node of this machine is found.
struct Desk {
    dir: TempDir,
    mesh: String,
    port: u16,
}

impl Desk {
    fn new() -> Self {
        // Nothing listens on a port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let desk = Self {
            dir: TempDir::with_prefix("gemmesh-cli-").expect("a temporary directory"),
            mesh: fresh_mesh(),
            port: port.expect("a free port").port(),
        };
        desk.file("a.csv", b"1,2,3\n4,5,6\n");
        desk.file("b.csv", b"7,8\n9,10\n11,12\n");
        desk
    }

    fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.dir.path().join(name), content).expect("a file");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The program with these words, without a terminal.
    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(gemmesh_tests::bin());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GEMMESH_") {
                command.env_remove(name);
            }
        }
        command
            .args(words.split_whitespace())
            .current_dir(self.dir.path())
            .env("GEMMESH_BIND", "127.0.0.1")
            .env("GEMMESH_MESH", &self.mesh)
            .env("GEMMESH_PORT", self.port.to_string())
            .env("GEMMESH_DATA_DIR", self.dir.path().join("data"))
            .env("GEMMESH_THREADS", "1")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, words: &str) -> Output {
        self.command(words)
            .output()
            .unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    /// What a command that must succeed prints.
    #[track_caller]
    fn good(&self, words: &str) -> String {
        let output = self.run(words);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{words}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// What a command that must end with `code` says; it prints no result.
    #[track_caller]
    fn bad(&self, words: &str, code: i32) -> String {
        let output = self.run(words);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words}: {errors}");
        assert!(
            output.stdout.is_empty(),
            "{words} printed {}",
            text(&output.stdout)
        );
        errors
    }

    fn node(&self) -> Node {
        Options::loopback("desk", &self.mesh)
            .data_dir(&self.dir.path().join("data"))
            .start()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn two_small_files_are_multiplied_without_a_node() {
    let desk = Desk::new();
    let output = desk.run("multiply a.csv b.csv");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "58,64\n139,154\n");
    let who = text(&output.stderr);
    assert!(who.contains("DEVICE") && who.contains("MFLOPS"), "{who}");
    assert!(
        !who.contains('\u{1b}'),
        "no control codes without a terminal: {who:?}"
    );
}

#[test]
fn a_list_of_products_is_one_job() {
    let desk = Desk::new();
    let node = desk.node();
    desk.file("in.txt", b"# two that fit\na.csv b.csv\nb.csv a.csv\n");
    assert_eq!(
        desk.good("multiply --batch in.txt"),
        "# 0\n58,64\n139,154\n# 1\n39,54,69\n49,68,87\n59,82,105\n"
    );
    desk.good("multiply --batch in.txt -o out");
    let first = Matrix::from_npy(&desk.read("out/0.npy"));
    assert_eq!(first, Matrix::of(&[[58.0, 64.0], [139.0, 154.0]]));
    desk.good("multiply --batch in.txt -o c{}.csv");
    assert_eq!(desk.read("c1.csv"), b"39,54,69\n49,68,87\n59,82,105\n");
    desk.file(
        "named.txt",
        b"a.csv b.csv \"the first.csv\"\nb.csv a.csv second.mtx\n",
    );
    desk.good("multiply --batch named.txt");
    assert_eq!(desk.read("the first.csv"), b"58,64\n139,154\n");
    assert!(desk.read("second.mtx").starts_with(b"%%MatrixMarket"));

    let job = desk.good("multiply --batch in.txt --detach --name twice");
    let job = job.trim();
    let object: Value =
        serde_json::from_str(&desk.good(&format!("job {job} --json"))).expect("JSON");
    assert_eq!(
        (&object["products"], &object["name"]),
        (&2.into(), &"twice".into())
    );
    desk.good(&format!("result {job} -o later"));
    assert_eq!(Matrix::from_npy(&desk.read("later/0.npy")), first);
    assert!(desk.good("jobs").contains("2 products"));
    assert!(desk.good(&format!("job {job}")).contains("2 products"));

    // What can not be multiplied is named, and the others are written.
    desk.file("bad.txt", b"a.csv b.csv\na.csv a.csv\nb.csv a.csv\n");
    let output = desk.run("multiply --batch bad.txt -o some");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("line 2") && errors.contains("2 × 3"),
        "{errors}"
    );
    desk.read("some/0.npy");
    desk.read("some/2.npy");
    assert!(!desk.dir.path().join("some/1.npy").exists());
    let output = desk.run("multiply --batch bad.txt -o some --json");
    let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(object["failed"][0]["index"], 1, "{object}");
    assert_eq!(
        object["output"].as_array().expect("a list").len(),
        2,
        "{object}"
    );

    for (words, named) in [
        ("multiply --batch none.txt", "none.txt"),
        ("multiply --batch a.csv", "a.csv"),
        ("multiply --batch in.txt -o c.csv", "2 products"),
        ("multiply --batch in.txt -o c.pdf", "c.pdf"),
        ("multiply --batch in.txt a.csv", "--batch"),
    ] {
        let errors = desk.bad(words, 2);
        assert!(errors.contains(named), "{words}: {errors}");
    }
    drop(node);
}

#[test]
fn stacks_of_matrices_are_multiplied_one_by_one() {
    let desk = Desk::new();
    let header = |shape: &str, data: &[f64]| {
        let mut text = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({shape}), }}");
        while (text.len() + 11) % 64 > 0 {
            text.push(' ');
        }
        text.push('\n');
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((text.len() as u16).to_le_bytes());
        file.extend(text.as_bytes());
        file.extend(data.iter().flat_map(|x| x.to_le_bytes()));
        file
    };
    desk.file("a.npy", &header("2, 1, 2", &[1.0, 2.0, 3.0, 4.0]));
    desk.file("b.npy", &header("2, 2, 1", &[1.0, 1.0, 10.0, 1.0]));
    desk.good("multiply a.npy b.npy -o c.npy");
    assert_eq!(desk.read("c.npy"), header("2, 1, 1", &[3.0, 34.0]));
    desk.file("three.npy", &header("3, 2, 1", &[0.0; 6]));
    let errors = desk.bad("multiply a.npy three.npy", 2);
    assert!(
        errors.contains("a stack of 2") && errors.contains("a stack of 3"),
        "{errors}"
    );
    let errors = desk.bad("multiply a.npy b.npy -o c.csv", 2);
    assert!(errors.contains("three dimensions"), "{errors}");
}

#[test]
fn each_form_of_file_is_read_and_written() {
    let desk = Desk::new();
    let (a, b) = (Matrix::random(5, 7, 1), Matrix::random(7, 3, 2));
    desk.file("a.npy", &a.npy());
    desk.file("b.npy", &b.npy());
    desk.good("multiply a.npy b.npy -o c.npy");
    Matrix::from_npy(&desk.read("c.npy")).assert_is_product(&a, &b);

    desk.file(
        "p.mtx",
        b"%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 2 1\n2 1 3\n",
    );
    desk.good("multiply p.mtx p.mtx -o p2.mtx");
    let square = text(&desk.read("p2.mtx"));
    assert!(
        square.starts_with("%%MatrixMarket matrix") && square.contains("integer"),
        "{square}"
    );
    assert_eq!(desk.good("multiply p.mtx p.mtx"), "3,0\n0,3\n");
}

#[test]
fn standard_input_and_output_are_csv() {
    let desk = Desk::new();
    let input = fs::File::open(desk.dir.path().join("b.csv")).expect("a file");
    let output = desk
        .command("multiply a.csv - -o -")
        .stdin(input)
        .output()
        .expect("it runs");
    assert_eq!(
        text(&output.stdout),
        "58,64\n139,154\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn integers_of_any_size_are_exact() {
    let desk = Desk::new();
    desk.file("big.csv", b"123456789012345678901234567890\n");
    let product = "15241578753238836750495351562536198787501905199875019052100\n";
    assert_eq!(desk.good("multiply big.csv big.csv --dtype int"), product);
    let error = desk.bad("multiply big.csv big.csv --dtype int -o big.npy", 2);
    assert!(
        error.contains("csv") && error.contains("mtx") && error.contains("big.npy"),
        "{error}"
    );
    assert!(
        !desk.dir.path().join("big.npy").exists(),
        "nothing is left of what can not be"
    );
}

#[test]
fn json_is_one_object_with_the_status_and_the_result() {
    let desk = Desk::new();
    let object: Value =
        serde_json::from_str(&desk.good("multiply a.csv b.csv --json")).expect("JSON");
    assert_eq!(object["state"], "done");
    assert_eq!(object["output"]["data"][1][1], 154.0);
    assert_eq!(object["contributions"][0]["operations"], 24);
    let object: Value =
        serde_json::from_str(&desk.good("multiply a.csv b.csv -o c.npy --json")).expect("JSON");
    assert_eq!(object["output"]["file"], "c.npy");
    assert_eq!(object["output"]["bytes"], desk.read("c.npy").len());
}

#[test]
fn bad_input_is_named_and_ends_with_2() {
    let desk = Desk::new();
    desk.file("ragged.csv", b"1,2\n3\n");
    desk.file("words.csv", b"1,two\n3,4\n");
    desk.file("empty.csv", b"");
    desk.file("nan.csv", b"1,nan\n3,4\n");
    desk.file("short.npy", &Matrix::random(4, 4, 1).npy()[..100]);
    desk.file("pickled.npy", &pickled());
    desk.file(
        "broken.mtx",
        b"%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 5\n",
    );
    desk.file("notes.pdf", b"1,2\n");
    fs::create_dir(desk.dir.path().join("folder.csv")).expect("a directory");
    for (words, parts) in [
        ("multiply ragged.csv a.csv", &["ragged.csv", "line 2"][..]),
        ("multiply words.csv a.csv", &["words.csv", "two"]),
        ("multiply empty.csv a.csv", &["empty.csv"]),
        ("multiply nan.csv nan.csv --dtype int", &["nan.csv"]),
        ("multiply short.npy a.csv", &["short.npy"]),
        ("multiply pickled.npy a.csv", &["pickled.npy", "object"]),
        ("multiply broken.mtx a.csv", &["broken.mtx"]),
        ("multiply a.csv a.csv", &["a.csv is 2×3", "columns", "rows"]),
        (
            "multiply missing.csv a.csv",
            &["missing.csv", "no such file"],
        ),
        ("multiply folder.csv a.csv", &["folder.csv", "directory"]),
        ("multiply notes.pdf a.csv", &["notes.pdf", ".npy"]),
        ("multiply a.csv b.csv -o c.xls", &["c.xls", ".npy"]),
        (
            "multiply a.csv b.csv -o no/c.npy",
            &["no/c.npy", "directory does not exist"],
        ),
        ("multiply - -", &["standard input"]),
        ("multiply a.csv b.csv --mode hidden", &["hidden", "private"]),
        (
            "multiply a.csv b.csv --colluders 2",
            &["--colluders", "--mode private"],
        ),
        ("multiply a.csv b.csv --masks 2", &["--masks"]),
        ("multiply a.csv b.csv --dtype i32", &["i32", "f64"]),
        ("multiply a.csv b.csv --timeout soon", &["soon", "90s"]),
        (
            "multiply a.csv b.csv --node https://a",
            &["https", "http://"],
        ),
        ("multiply a.csv", &["<B>"]),
        ("serve --memory lots", &["lots", "512M"]),
        (
            "serve --memory 1M --threads 1",
            &["--memory", "at least 88M"],
        ),
        ("serve --mesh-key key", &["--mesh-key"]),
        ("job xyz", &["xyz", "hexadecimal"]),
        ("mulitply a.csv b.csv", &["mulitply", "multiply"]),
    ] {
        let error = desk.bad(words, 2);
        for part in parts {
            assert!(
                error.contains(part),
                "`{words}` does not say {part}: {error}"
            );
        }
    }
}

/// A file of Python objects, which only `pickle` can read.
fn pickled() -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    let header = "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }";
    bytes.extend_from_slice(format!("{header:<117}\n").as_bytes());
    bytes.extend_from_slice(b"\x80\x04\x95");
    bytes
}

#[test]
fn where_no_node_is_the_program_ends_with_3() {
    let desk = Desk::new();
    let place = format!("127.0.0.1:{}", desk.port);
    for words in [
        format!("multiply a.csv b.csv --node {place}"),
        format!("jobs --node {place}"),
        format!("job 3f --node {place}"),
        format!("result 3f --node http://{place}/"),
        format!("cancel 3f --node {place}"),
        format!("nodes --node {place}"),
    ] {
        let error = desk.bad(&words, 3);
        assert!(
            error.contains(&place) && error.contains("gemmesh serve"),
            "{words}: {error}"
        );
    }
    for words in ["jobs", "nodes", "multiply a.csv b.csv --detach"] {
        let error = desk.bad(words, 3);
        assert!(
            error.contains("gemmesh serve") && error.contains("--node"),
            "{words}: {error}"
        );
    }
}

#[test]
fn the_node_of_this_device_is_found_by_its_data_directory() {
    let desk = Desk::new();
    let mut node = desk.node();
    let devices: Value = serde_json::from_str(&desk.good("nodes --json")).expect("JSON");
    assert_eq!(devices[0]["name"], "desk");
    assert!(desk.good("nodes").contains("desk"));

    let id = desk.good("multiply a.csv b.csv --detach --name first");
    let id = id.trim();
    desk.good("multiply a.csv b.csv -o c.npy --name second");
    let jobs = desk.good("jobs");
    assert!(jobs.contains("first") && jobs.contains("second"), "{jobs}");
    // The second was taken later and has ended; the first is asked for until it has, too.
    let job = node.api.get(&format!("/api/jobs/{id}?wait=60")).json();
    assert_eq!(job["state"], "done");
    assert!(desk.good(&format!("job {}", &id[..8])).contains("first"));
    assert_eq!(desk.good(&format!("result {id}")), "58,64\n139,154\n");
    desk.good(&format!("result {} -o again.csv", &id[..8]));
    assert_eq!(desk.read("again.csv"), b"58,64\n139,154\n");
    assert!(desk.good(&format!("cancel {id}")).contains("ended already"));
    let error = desk.bad(&format!("result {}", "0".repeat(32)), 2);
    assert!(error.contains("000000"), "{error}");

    let error = desk.bad("serve", 2);
    assert!(
        error.contains("data") && error.contains(&node.api.address),
        "{error}"
    );
    let port = node
        .api
        .address
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let error = desk.bad(&format!("serve --data-dir other --port {port}"), 1);
    assert!(error.contains(&port) && error.contains("--port"), "{error}");

    let (status, _) = node.interrupt();
    assert_eq!(status.code(), Some(0));
    desk.bad("nodes", 3);
}

#[test]
fn a_job_that_takes_too_long_is_cancelled() {
    let desk = Desk::new();
    let node = desk.node();
    desk.file("big.npy", &Matrix::random(1_200, 1_200, 3).npy());
    let error = desk.bad("multiply big.npy big.npy -o c.npy --timeout 1ms", 1);
    assert!(
        error.contains("not done after") && error.contains("is cancelled"),
        "{error}"
    );
    assert_eq!(node.api.get("/api/jobs").json()[0]["state"], "cancelled");
    assert!(!desk.dir.path().join("c.npy").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_cancels_the_job_and_says_so() {
    let desk = Desk::new();
    let node = desk.node();
    desk.file("big.npy", &Matrix::random(2_500, 2_500, 3).npy());
    let mut command = desk.command("multiply big.npy big.npy -o c.npy");
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    until("the job to be taken", JOB_LIMIT, || {
        let jobs = node.api.get("/api/jobs").json();
        jobs[0]["job"]
            .is_string()
            .then_some(())
            .ok_or_else(|| jobs.to_string())
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a child of ours");
    let output = child.wait_with_output().expect("it ends");
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("stopped; job") && error.contains("is cancelled"),
        "{error}"
    );
    assert_eq!(node.api.get("/api/jobs").json()[0]["state"], "cancelled");
}

#[test]
fn help_starts_with_examples() {
    let desk = Desk::new();
    let help = desk.good("--help");
    let (examples, usage) = (help.find("Examples:"), help.find("Usage:"));
    assert!(examples.is_some() && examples < usage, "{help}");
    assert!(!help.contains("--mesh-key"), "{help}");
    for command in "serve multiply jobs job result cancel nodes bench doctor completions".split(' ')
    {
        assert!(
            help.contains(&format!("  {command} ")),
            "{command} is not in {help}"
        );
        assert!(
            desk.good(&format!("help {command}")).contains("Examples:"),
            "{command}"
        );
    }
    assert!(desk.good("--version").starts_with("gemmesh "));
    assert!(desk.good("completions bash").contains("multiply"));
}

#[test]
fn the_doctor_tells_what_is_broken() {
    let desk = Desk::new();
    let report: Value = serde_json::from_str(&desk.good("doctor --json")).expect("JSON");
    assert_eq!(report["usable"], true, "{report}");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let output = desk.run(&format!("doctor --port {port}"));
    assert_eq!(output.status.code(), Some(1));
    let lines = text(&output.stdout);
    assert!(
        lines.contains("fail") && lines.contains(&port.to_string()) && lines.contains("fix:"),
        "{lines}"
    );
    assert!(
        Path::new(&desk.dir.path().join("a.csv")).exists()
            && !desk.dir.path().join("data").exists()
    );
}
