package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/securenets/securenets/daemon"
	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/internal/lane"
	"github.com/securenets/securenets/internal/wire"
)

func read(t *testing.T, path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestUnit: what deploy/securenetsd.service starts are this program's flags, and its folders
// and times are those of the configuration's defaults.
func TestUnit(t *testing.T) {
	unit := map[string]string{}
	for line := range strings.Lines(read(t, "../../deploy/securenetsd.service")) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && key[0] != '#' {
			unit[key] = value
		}
	}
	args := strings.Fields(unit["ExecStart"])
	if len(args) != 4 || filepath.Base(args[0]) != "securenetsd" || args[1] != "serve" || args[2] != "--config" {
		t.Fatalf("ExecStart %q", args)
	}
	if status := run(t.Context(), []string{"check-config", "--config", "../../config.toml"}); status != 0 {
		t.Errorf("status %d", status)
	}
	d := config.Default()
	path, err := wire.SocketPath(d.Listen)
	if err != nil {
		t.Fatal(err)
	}
	if got := filepath.Join("/run", unit["RuntimeDirectory"]); got != filepath.Dir(path) {
		t.Errorf("the socket is in %s, and %s is made", filepath.Dir(path), got)
	}
	if got := filepath.Join("/var/lib", unit["StateDirectory"]); got != d.StateDir {
		t.Errorf("the state is in %s, and %s is made", d.StateDir, got)
	}
	if stop, err := time.ParseDuration(unit["TimeoutStopSec"] + "s"); err != nil || stop < d.DrainTimeout()+10*time.Second {
		t.Errorf("%v to stop, the drain takes %v: %v", stop, d.DrainTimeout(), err)
	}
	if unit["Type"] != "notify" || unit["RestartPreventExitStatus"] != "2" {
		t.Errorf("Type %q, RestartPreventExitStatus %q", unit["Type"], unit["RestartPreventExitStatus"])
	}
	if user := strings.Fields(read(t, "../../deploy/securenets.sysusers")); !slices.Contains(user, unit["User"]) {
		t.Errorf("user %q is not made", unit["User"])
	}
}

// TestAlerts: figures, reasons and verdicts in deploy/prometheus.rules.yml are the daemon's.
func TestAlerts(t *testing.T) {
	rules, figures := read(t, "../../deploy/prometheus.rules.yml"), read(t, "../../docs/operations.md")
	names := regexp.MustCompile(`\b(securenets|nv|process)_[a-z0-9_]+`).FindAllString(regexp.MustCompile(`(?m)record: .*$`).ReplaceAllString(rules, ""), -1)
	if len(names) < 10 {
		t.Errorf("figures %q", names)
	}
	for _, n := range names {
		if !strings.Contains(figures, "`"+n) && !strings.HasPrefix(n, "process_") {
			t.Errorf("no figure %s", n)
		}
	}
	values := 0
	for _, m := range regexp.MustCompile(`(reason|verdict)="([^"]*)"`).FindAllStringSubmatch(rules, -1) {
		known := slices.ContainsFunc(wire.Reasons, func(r wire.Reason) bool { return string(r) == m[2] })
		if m[1] == "verdict" {
			known = slices.ContainsFunc(lane.Verdicts(), func(v lane.Verdict) bool { return v.String() == m[2] })
		}
		if !known {
			t.Errorf("no %s %q", m[1], m[2])
		}
		values++
	}
	if values < 3 {
		t.Errorf("%d reasons and verdicts", values)
	}
}

// TestCertificates: the commands of docs/operations.md make certificates that each side accepts.
func TestCertificates(t *testing.T) {
	if out, err := exec.Command("openssl", "version").Output(); err != nil || !strings.HasPrefix(string(out), "OpenSSL 3") {
		t.Skipf("no OpenSSL 3: %q, %v", out, err)
	}
	dir := t.TempDir()
	commands := regexp.MustCompile(`(?m)^    openssl .*$`).FindAllString(read(t, "../../docs/operations.md"), -1)
	if len(commands) != 3 {
		t.Fatalf("%d commands", len(commands))
	}
	for _, c := range commands {
		cmd := exec.Command("sh", "-c", c)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
	ca := x509.NewCertPool()
	if !ca.AppendCertsFromPEM([]byte(read(t, filepath.Join(dir, "ca.pem")))) {
		t.Fatal("no CA")
	}
	leaf := func(name string, use x509.ExtKeyUsage) *x509.Certificate {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: ca, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return pair.Leaf
	}
	if err := leaf("cloud", x509.ExtKeyUsageServerAuth).VerifyHostname("cloud.example"); err != nil {
		t.Error(err)
	}
	if name, err := daemon.CallerName(leaf("host", x509.ExtKeyUsageClientAuth)); err != nil || name != "dns:host.example" {
		t.Errorf("the caller is %q, %v", name, err)
	}
}

// TestNotify: systemd is told when the daemon serves and when it stops.
func TestNotify(t *testing.T) {
	dir := t.TempDir()
	at := &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "n")}
	systemd, err := net.ListenUnixgram("unixgram", at)
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", at.Name)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--listen", "unix:" + filepath.Join(dir, "s"), "--state-dir", filepath.Join(dir, "state")})
	}()
	told := func() string {
		b := make([]byte, 100)
		systemd.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := systemd.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got := told(); got != "READY=1" {
		t.Errorf("at the start: %q", got)
	}
	stop()
	if got := told(); got != "STOPPING=1" {
		t.Errorf("at the end: %q", got)
	}
	if status := <-ended; status != 0 {
		t.Errorf("status %d", status)
	}
}
