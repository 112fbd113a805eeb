//go:build !buoyfail

package main

func failpoint() func(string) { return nil }

func sabotage(config) error { return nil }
