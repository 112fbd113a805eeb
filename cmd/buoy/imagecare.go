package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/size"
)

func (c *cli) imagesDfCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "df",
		Short: "Show what images take on the node's disk",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			var raw json.RawMessage
			if err := b.Do(ctx, http.MethodGet, "/nodes/{node}/images/df", nil, &raw); err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(raw)
			}
			var u buoy.DiskUsage
			if err := json.Unmarshal(raw, &u); err != nil {
				return fmt.Errorf("decode what images take: %w", err)
			}
			return c.diskUsage(u)
		}),
	}
}

// diskUsage shows the images, then all there is.
func (c *cli) diskUsage(u buoy.DiskUsage) error {
	rows := [][]string{}
	for _, i := range u.Images {
		use := ""
		switch {
		case i.InUse && i.Pinned:
			use = "in use, pinned"
		case i.InUse:
			use = "in use"
		case i.Pinned:
			use = "pinned"
		}
		rows = append(rows, []string{i.Ref, size.Text(i.Size), size.Text(i.Shared), size.Text(i.Reclaimable), since(i.Used), use})
	}
	if err := c.table([]string{"IMAGE", "SIZE", "SHARED", "RECLAIMABLE", "USED", "NOTE"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, p := range []struct {
		name string
		part buoy.UsagePart
	}{{"layers", u.Layers}, {"flists", u.Flists}, {"chunks of flists", u.Chunks}, {"partial downloads", u.Partial}} {
		rows = append(rows, []string{p.name, fmt.Sprint(p.part.Count), size.Text(p.part.Bytes)})
	}
	if _, err := fmt.Fprintln(c.stdout); err != nil {
		return err
	}
	if err := c.table([]string{"TYPE", "COUNT", "SIZE"}, rows); err != nil {
		return err
	}
	collected := "unused images are never removed by themselves"
	if u.GCHigh > 0 {
		collected = fmt.Sprintf("unused images are removed above %d %%, down to %d %%", u.GCHigh, u.GCLow)
	}
	_, err := fmt.Fprintf(c.stdout, "\nreclaimable: %s; disk: %s of %s free, %s of it in reserve; %s\n",
		size.Text(u.Reclaimable), size.Text(u.Free), size.Text(u.Total), size.Text(u.Reserve), collected)
	return err
}

func (c *cli) imagesPinCommand(pin bool) *cobra.Command {
	verb, short := "pin", "Keep images from being removed to make room"
	if !pin {
		verb, short = "unpin", "Let images be removed to make room"
	}
	return &cobra.Command{
		Use:   verb + " IMAGE…",
		Short: short,
		Args:  takes(1, -1, "one or more images"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, refs []string) error {
			return c.each(ctx, refs, func(ref string) error {
				ref, err := imageRef(ref, c.place())
				if err != nil {
					return err
				}
				if pin {
					return about(errNoImage, b.PinImage(ctx, ref))
				}
				return about(errNoImage, b.UnpinImage(ctx, ref))
			})
		}),
	}
}

func (c *cli) imagesExportCommand() *cobra.Command {
	return c.exportTo("IMAGE", "Write an image of the node to a file, as an OCI archive, or an flist as it is",
		func(ctx context.Context, b *buoy.Client, name string) (io.ReadCloser, error) {
			ref, err := imageRef(name, c.place())
			if err != nil {
				return nil, err
			}
			in, err := b.ExportImage(ctx, ref)
			return in, about(errNoImage, err)
		})
}

func (c *cli) exportCommand() *cobra.Command {
	cmd := c.exportTo("CONTAINER", "Write the file system of a running container to a file, as an archive of tar",
		func(ctx context.Context, b *buoy.Client, name string) (io.ReadCloser, error) {
			in, err := b.Export(ctx, name)
			return in, about(errNoContainer, err)
		})
	cmd.Long = `Write the file system of a running container to a file, as an archive of tar. What
is mounted into the container, as volumes are, is not in it. To write an image,
use "buoy images export".`
	return cmd
}

// exportTo is a verb that writes what open gives to a file.
func (c *cli) exportTo(what, short string, open func(context.Context, *buoy.Client, string) (io.ReadCloser, error)) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "export " + what + " -o FILE",
		Short: short,
		Args:  takes(1, 1, "one "+strings.ToLower(what)),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			if file == "" {
				file = "-"
			}
			if file == "-" && isTerminal(c.stdout) {
				return errors.New("an archive is not for a terminal; redirect it, or name a file with -o FILE")
			}
			in, err := open(ctx, b, args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			if file == "-" {
				_, err := io.Copy(c.stdout, in)
				return err
			}
			return save(file, in)
		}),
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "`FILE` to write (default: the standard output)")
	return cmd
}

// save writes a file that is whole or not there.
func save(file string, in io.Reader) (err error) {
	if st, err := os.Stat(file); err == nil && !st.Mode().IsRegular() { // a device, a pipe
		return writeTo(file, in)
	}
	tmp := file + ".part"
	if err = writeTo(tmp, in); err == nil {
		err = os.Rename(tmp, file)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return nil
}

func writeTo(file string, in io.Reader) error {
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // an image is no secret
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (c *cli) importCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE|- [IMAGE]",
		Short: "Bring an image from a file onto the node",
		Long: `Bring an image from a file onto the node: what "buoy export" or "buoy images
export" wrote, or another image archive, root file system or flist. - is the
standard input. A signature in FILE.sig is sent along. IMAGE is what it is called
from now on; what does not say so itself needs one, as in a registry (team/app:1),
and an flist needs hub:USER/NAME or a URL.`,
		Example: `  buoy export web -o web.tar
  buoy import web.tar team/web:today
  docker save nginx:1.27 | buoy import -`,
		Args: takes(1, 2, "a file, or -, and the name of the image"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			in, signature, done, err := c.source(args[0])
			if err != nil {
				return err
			}
			defer done()
			image, err := b.ImportImage(ctx, in, strings.Join(args[1:], ""), signature)
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(image)
			}
			_, err = fmt.Fprintln(c.stdout, image.Ref)
			return err
		}),
	}
}

// source opens what is imported, with the signature beside it.
func (c *cli) source(file string) (in io.Reader, signature string, done func(), err error) {
	if file == "-" {
		return c.stdin, "", func() {}, nil
	}
	sig, err := os.ReadFile(file + ".sig")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, "", nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, "", nil, err
	}
	return f, strings.TrimSpace(string(sig)), func() { _ = f.Close() }, nil
}
