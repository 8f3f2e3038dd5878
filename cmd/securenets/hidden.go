package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/securenets/securenets/cmd/securenets/internal/bench/serve"
	"github.com/securenets/securenets/cmd/securenets/internal/peer"
	"github.com/securenets/securenets/hostclient"
)

// newEcho returns the command that peer.Seal runs.
func newEcho() *cobra.Command {
	return &cobra.Command{
		Use: peer.EchoCommand + " ADDRESS", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return peer.Serve(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout(), hostclient.ServeEcho)
		},
	}
}

// newFrames returns the command that bench serve --echo runs.
func newFrames() *cobra.Command {
	return &cobra.Command{
		Use: serve.FramesCommand + " ADDRESS", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return peer.Serve(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout(), serve.Frames)
		},
	}
}

// newHold returns the command that bench serve runs for idle callers.
func newHold() *cobra.Command {
	return &cobra.Command{
		Use: serve.HoldCommand + " ADDRESS CALLERS", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			callers, err := strconv.Atoi(args[1])
			if err != nil {
				return usageError{err}
			}
			return serve.Hold(cmd.Context(), args[0], callers, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
