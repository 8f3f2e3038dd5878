// Package manual gives commands what tells users about them: manual pages, shell completions,
// and help on a command by its name.
package manual

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/securenets/securenets/internal/version"
)

// ErrPages reports that manual pages could not be written.
var ErrPages = errors.New("manual pages")

// AddTo gives root, which has all its other commands, the commands man, completion and help.
func AddTo(root *cobra.Command) {
	root.AddCommand(newMan())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() { // these two would take any argument
		switch c.Name() {
		case "help":
			c.Args = topic
		case "completion":
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
}

// topic refuses arguments of help that are no path of a command.
func topic(cmd *cobra.Command, args []string) error {
	at, rest, err := cmd.Root().Find(args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("unknown command %q for %q", rest[0], at.CommandPath())
	}
	return err
}

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long:  "Man writes a manual page of every command to DIR, in section 1.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("usage: %s DIR; arguments given: %d", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			err := os.MkdirAll(args[0], 0o755)
			if err == nil {
				err = writePages(args[0], cmd.Root())
			}
			if err != nil {
				return fmt.Errorf("%w: %w", ErrPages, err)
			}
			return nil
		},
	}
}

// writePages writes the page of a command and of those under it.
func writePages(dir string, cmd *cobra.Command) error {
	if err := os.WriteFile(filepath.Join(dir, pageName(cmd)+".1"), []byte(Page(cmd)), 0o644); err != nil {
		return err
	}
	for _, c := range Children(cmd) {
		if err := writePages(dir, c); err != nil {
			return err
		}
	}
	return nil
}

// Children returns the commands and help topics under cmd.
func Children(cmd *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
			all = append(all, c)
		}
	}
	return all
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// Page returns the manual page of a command, in the man macros of roff.
func Page(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH \"%s\" 1 \"\" \"securenets %s\"\n", roff(strings.ToUpper(pageName(cmd))), roff(version.String()))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(cmd)), roff(cmd.Short))
	if cmd.Runnable() {
		fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(cmd.UseLine()))
	}
	if text := cmd.Long; text != "" { // it is laid out in lines
		fmt.Fprintf(&b, ".SH DESCRIPTION\n.nf\n%s\n.fi\n", roff(text))
	}
	flags := func(title string, set *pflag.FlagSet) {
		if !set.HasAvailableFlags() {
			return
		}
		fmt.Fprintf(&b, ".SH %s\n", title)
		set.VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			name, usage := pflag.UnquoteUsage(f)
			option := "--" + f.Name
			if f.Shorthand != "" {
				option = "-" + f.Shorthand + ", " + option
			}
			if name != "" {
				option += " " + name
			}
			if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" {
				usage += " (default " + f.DefValue + ")"
			}
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(option), roff(usage))
		})
	}
	cmd.InitDefaultHelpFlag()
	flags("OPTIONS", cmd.NonInheritedFlags())
	flags("INHERITED OPTIONS", cmd.InheritedFlags())
	var see []string
	if cmd.HasParent() {
		see = append(see, pageName(cmd.Parent()))
	}
	for _, c := range Children(cmd) {
		see = append(see, pageName(c))
	}
	for i, name := range see {
		see[i] = roff(name) + "(1)"
	}
	fmt.Fprintf(&b, ".SH \"SEE ALSO\"\n%s\n", strings.Join(see, ", "))
	return b.String()
}

// roff escapes text so that no line of it is a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", "\n\\&").Replace(text)
	return `\&` + text
}
