// SPDX-License-Identifier: GPL-2.0-only
//! Workloads of a server and its clients, started and ended each time: nginx and Apache with wrk, PostgreSQL with pgbench.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::User;

use super::{APACHE, END_LIMIT, NGINX, PGBENCH, POSTGRES, Site, found};
use crate::lab::statistics::quantile;
use crate::lab::tools;

/// Where Debian has Apache's modules.
const APACHE_MODULES: &str = "/usr/lib/apache2/modules";
/// Who serves: Apache does not as root.
const WEB_USER: &str = "www-data";
/// Of the page that web servers serve.
const PAGE_BYTES: usize = 1024;
/// pgbench's scale: 100,000 rows each.
const SCALE: &str = "3";
/// The first transactions of a client read the catalogue.
const SKIPPED: u64 = 5;
const SECONDS: &str = "4";

/// The page, and a folder for all files of a web server.
pub fn prepare_web(site: &Site<'_>) -> Result<()> {
    let folder = site.path("web");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let page = folder.join("index.html");
    fs::write(&page, vec![b'x'; PAGE_BYTES]).with_context(|| format!("writing {}", page.display()))
}

/// All of nginx's files are in its folder.
fn nginx_configuration(folder: &Path, workers: usize, port: u16) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    format!(
        "user root;\ndaemon off;\nerror_log stderr;\npid {folder}/pid;\nworker_processes {workers};\n\
         events {{ worker_connections 256; }}\nhttp {{\n    access_log off;\n{temporary}\
         \n    server {{ listen 127.0.0.1:{port}; root {folder}; }}\n}}\n"
    )
}

pub fn run_nginx(site: &Site<'_>) -> Result<Vec<f64>> {
    serve(site, "nginx", nginx_configuration, |folder, configuration| {
        let mut command = Command::new(NGINX.check()?);
        command.arg("-p").arg(folder).arg("-e").arg("stderr").arg("-c").arg(configuration);
        Ok(command)
    })
}

/// All of Apache's files are in its folder, but for its modules.
fn apache_configuration(folder: &Path, workers: usize, port: u16) -> String {
    let folder = folder.display();
    let modules: String = ["mpm_event", "authz_core", "unixd"]
        .map(|name| format!("LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so\n"))
        .concat();
    format!(
        "{modules}ServerRoot {folder}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {folder}/pid\n\
         DefaultRuntimeDir {folder}\nUser {WEB_USER}\nGroup {WEB_USER}\nStartServers {workers}\nServerLimit {workers}\n\
         ThreadsPerChild 16\nMaxRequestWorkers {}\nDocumentRoot {folder}\nErrorLog {folder}/error.log\n\
         KeepAlive On\nMaxKeepAliveRequests 0\n<Directory {folder}>\n    Require all granted\n</Directory>\n",
        16 * workers
    )
}

pub fn run_apache(site: &Site<'_>) -> Result<Vec<f64>> {
    serve(site, "apache2", apache_configuration, |_, configuration| {
        let mut command = Command::new(APACHE.check()?);
        command.arg("-D").arg("FOREGROUND").arg("-f").arg(configuration);
        Ok(command)
    })
}

/// A web server, and wrk: requests/s, and their 99th percentile, us. `configuration` gets the folder, how many processes
/// serve, and the port; `command` the folder and the configuration's file.
fn serve(
    site: &Site<'_>,
    name: &str,
    configuration: fn(&Path, usize, u16) -> String,
    command: impl Fn(&Path, &Path) -> Result<Command>,
) -> Result<Vec<f64>> {
    let folder = site.path("web");
    // Nobody else listens there, or the kernel would not have given it.
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).context("finding a port")?.port();
    let file = folder.join(format!("{name}.conf"));
    fs::write(&file, configuration(&folder, site.cpus, port)).with_context(|| format!("writing {}", file.display()))?;
    let mut server = site.start(name, &mut command(&folder, &file)?)?;
    site.wait_ready(name, &mut server, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    let mut command = Command::new("wrk");
    command.args([format!("-t{}", (site.cpus / 2).max(1)), "-c32".into(), format!("-d{SECONDS}s")]);
    let ran = site.run("wrk", command.args(["--latency", &format!("http://127.0.0.1:{port}/")]))?;
    site.still_runs(name, &mut server)?;
    server.interrupt(END_LIMIT)?;
    let (requests_per_s, p99_us) = found(tools::wrk(&ran.text), "wrk", &ran.text)?;
    Ok(vec![requests_per_s, p99_us])
}

/// A program of PostgreSQL's, run as its user: as root it refuses.
fn postgres(tool: &str) -> Result<Command> {
    let user = User::from_name("postgres").ok().flatten();
    let user = user.context("there is no user postgres: apt install postgresql")?;
    let mut command = Command::new(tools::find(tool).with_context(|| format!("no {tool}: apt install postgresql"))?);
    command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).env_clear().env("LC_ALL", "C");
    Ok(command)
}

pub fn prepare_postgres(site: &Site<'_>) -> Result<()> {
    let folder = site.path("postgres");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    if let Some(user) = User::from_name("postgres").ok().flatten() {
        std::os::unix::fs::chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .with_context(|| format!("giving {} to the user postgres", folder.display()))?;
    }
    let data = folder.join("data");
    site.run("initdb", postgres("initdb")?.args(["-A", "trust", "-N", "-E", "UTF8", "-D"]).arg(&data))?;
    with_server(site, |site| {
        let mut command = postgres(PGBENCH.name)?;
        site.run("pgbench-init", command.arg("-h").arg(&folder).args(["-i", "-q", "-s", SCALE, "postgres"])).map(drop)
    })
}

pub fn run_pgbench(site: &Site<'_>) -> Result<Vec<f64>> {
    let folder = site.path("postgres");
    remove_logs(&folder)?;
    let text = with_server(site, |site| {
        let mut command = postgres(PGBENCH.name)?;
        command.arg("-h").arg(&folder).arg("-l").arg(format!("--log-prefix={}/log", folder.display()));
        command.args(["-n", "-N", "-M", "prepared", "-T", SECONDS, "-c", &(2 * site.cpus).to_string()]);
        command.args(["-j", &(site.cpus / 2).max(1).to_string(), "postgres"]);
        Ok(site.run("pgbench", &mut command)?.text)
    })?;
    let times_us = remove_logs(&folder)?;
    ensure!(!times_us.is_empty(), "pgbench made no transactions beyond the first {SKIPPED} of each client");
    Ok(vec![found(tools::pgbench_tps(&text), "pgbench", &text)?, quantile(times_us, 0.99)])
}

/// Does something while the server runs.
fn with_server<T>(site: &Site<'_>, work: impl Fn(&Site<'_>) -> Result<T>) -> Result<T> {
    let folder = site.path("postgres");
    let mut command = postgres(POSTGRES.name)?;
    command.arg("-D").arg(folder.join("data")).arg("-k").arg(&folder);
    for setting in ["listen_addresses=", "fsync=off", "autovacuum=off", "max_connections=100", "logging_collector=off"]
    {
        command.args(["-c", setting]);
    }
    let mut server = site.start("postgres", &mut command)?;
    let is_ready = tools::find("pg_isready").context("no pg_isready: apt install postgresql-client")?;
    site.wait_ready("postgres", &mut server, || {
        let output = Command::new(&is_ready).arg("-q").arg("-h").arg(&folder).output();
        output.is_ok_and(|output| output.status.success())
    })?;
    let done = work(site)?;
    site.still_runs("postgres", &mut server)?;
    // SIGINT is its fast shutdown.
    server.interrupt(END_LIMIT)?;
    Ok(done)
}

/// Removes pgbench's logs; the times in them, us.
fn remove_logs(folder: &Path) -> Result<Vec<f64>> {
    let mut times_us = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry.context("reading a folder")?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log.")) {
            times_us.extend(tools::pgbench_us(&super::read(&path)?, SKIPPED));
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(times_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_accepts_its_configuration() {
        let Ok(nginx) = NGINX.check() else {
            eprintln!("skipped: no nginx");
            return;
        };
        let folder = std::env::temp_dir().join(format!("scx_rl-nginx-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("nginx.conf");
        fs::write(&file, nginx_configuration(&folder, 2, 65_000)).unwrap();
        let output = Command::new(nginx).args(["-t", "-e", "stderr", "-p"]).arg(&folder).arg("-c").arg(&file).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn apache_accepts_its_configuration() {
        let Ok(apache) = APACHE.check() else {
            eprintln!("skipped: no apache2");
            return;
        };
        let folder = std::env::temp_dir().join(format!("scx_rl-apache-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("apache2.conf");
        fs::write(&file, apache_configuration(&folder, 2, 65_000)).unwrap();
        let output = Command::new(apache).args(["-t", "-f"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn logs_are_read_and_removed() {
        let folder = std::env::temp_dir().join(format!("scx_rl-pglog-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("log.12"), "0 5 900 0 1 1\n0 6 100 0 1 2\n").unwrap();
        fs::write(folder.join("log.12.1"), "1 7 300 0 1 1\n").unwrap();
        fs::write(folder.join("other"), "1 7 300 0 1 1\n").unwrap();
        let mut times_us = remove_logs(&folder).unwrap();
        times_us.sort_by(f64::total_cmp);
        assert_eq!(times_us, [100.0, 300.0]);
        assert!(remove_logs(&folder).unwrap().is_empty() && folder.join("other").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
