package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/render"
	"github.com/securenets/securenets/internal/version"
)

func newVersion() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w := cmd.OutOrStdout()
		if *asJSON {
			return render.JSON(w, struct {
				Version string `json:"version"`
				Go      string `json:"go"`
			}{version.String(), runtime.Version()})
		}
		_, err := fmt.Fprintf(w, "securenets %s\n", version.String())
		return err
	}
	return cmd
}
