package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/size"
)

func (c *cli) imagesCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:     "images",
		Aliases: []string{"image"},
		Short:   "List the images that the node has, or look after them",
		Args:    noSuchVerb,
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			images, items, err := fetch[buoy.Image](ctx, b, "/nodes/{node}/images")
			if err != nil {
				return err
			}
			l := listing{
				raw: items, items: items, of: buoy.Image{},
				head: []string{"IMAGE", "DIGEST", "SIZE", "PULLED", "NOTE"}, wide: []string{"CREATED", "LAYERS", "PLATFORM", "FULL DIGEST"},
			}
			for _, i := range images {
				platform := strings.Trim(i.OS+"/"+i.Architecture, "/")
				l.add(i.Ref, i.Ref, shortDigest(i.Digest), size.Text(i.Size), since(i.Pulled), remarks(i), since(i.Created), strconv.Itoa(i.Layers), platform, i.Digest)
			}
			return c.list(l, f)
		}),
	}
	f.register(cmd, "references")
	cmd.AddCommand(c.imagesDfCommand(), c.imagesPinCommand(true), c.imagesPinCommand(false), c.imagesExportCommand(), c.importCommand())
	return cmd
}

// remarks is what a list says of an image besides.
func remarks(image buoy.Image) string {
	var all []string
	switch {
	case image.Flist == nil:
	case image.Flist.Complete:
		all = append(all, "flist")
	default:
		all = append(all, "flist, lazy")
	}
	if image.Pinned {
		all = append(all, "pinned")
	}
	if image.SignedBy != "" {
		all = append(all, "signed by "+shortDigest(image.SignedBy))
	}
	return strings.Join(all, ", ")
}

func shortDigest(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}

func (c *cli) rmiCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rmi IMAGE…",
		Short: "Remove images from the node",
		Args:  takes(1, -1, "one or more images"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, refs []string) error {
			images, err := b.Images(ctx) // to remove one that is not there is a success for the API
			if err != nil {
				return err
			}
			return c.each(ctx, refs, func(ref string) error {
				ref, err := imageRef(ref, c.place())
				if err != nil {
					return err
				}
				if !has(images, ref) {
					return &missingError{kind: errNoImage, text: fmt.Sprintf("image %q is not on the node", ref), err: buoy.ErrNotFound}
				}
				return about(errNoImage, b.RemoveImage(ctx, ref, force))
			})
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also those that containers start from; the next start has to fetch them anew")
	return cmd
}

func (c *cli) pullCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "pull IMAGE…",
		Short: "Bring images onto the node",
		Args:  takes(1, -1, "one or more images"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, refs []string) error {
			for _, ref := range refs {
				ref, err := imageRef(ref, c.place())
				if err != nil {
					return err
				}
				image, err := c.pull(ctx, b, ref, quiet)
				if err != nil {
					return err
				}
				if c.output == "json" {
					err = c.json(image)
				} else {
					_, err = fmt.Fprintln(c.stdout, image.Ref)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	return cmd
}

// pull pulls an image and shows how far it is.
func (c *cli) pull(ctx context.Context, b *buoy.Client, ref string, quiet bool) (buoy.Image, error) {
	line := c.newProgressLine(ref, quiet)
	defer line.clear()
	for p, err := range b.Pull(ctx, ref) {
		if err != nil {
			return buoy.Image{}, c.pullError(ref, err)
		}
		if p.Image != nil {
			return *p.Image, nil
		}
		line.add(p)
	}
	return buoy.Image{}, fmt.Errorf("pull %s: no image came", ref)
}

// pullError names the image unless the error does, and the file here that may be meant.
func (c *cli) pullError(ref string, err error) error {
	if _, connect := err.(*buoy.ConnectError); connect { //nolint:errorlint // New's caller gets it bare
		return err
	}
	if !strings.Contains(err.Error(), ref) {
		err = fmt.Errorf("pull %s: %w", ref, err)
	}
	if _, serr := os.Stat(ref); serr != nil {
		return err
	}
	if !strings.HasPrefix(c.address(), "unix://") {
		return fmt.Errorf("%w; if you mean the file here, bring it with %q", err, "buoy import "+ref)
	}
	return fmt.Errorf("%w; if you mean the file here, write %q", err, "./"+ref)
}

// provide sees to it that the image is there, as --pull says. What comes from
// the node's own disk is left to the creation of the container.
func (c *cli) provide(ctx context.Context, b *buoy.Client, ref string, f *runFlags) error {
	if !isRemote(ref) {
		return nil
	}
	if f.pull != "always" {
		images, err := b.Images(ctx)
		if errors.Is(err, buoy.ErrForbidden) && f.pull == "missing" {
			return nil // to who is let in for some containers alone; their creation brings the image
		}
		if err != nil {
			return err
		}
		if has(images, ref) {
			return nil
		}
		if f.pull == "never" {
			return fmt.Errorf("image %s is not on the node; leave out --pull never, or run %q first", ref, "buoy pull "+ref)
		}
	}
	_, err := c.pull(ctx, b, ref, f.quiet)
	return err
}

// has says whether ref is among images.
func has(images []buoy.Image, ref string) bool {
	want := normalRef(ref)
	return slices.ContainsFunc(images, func(i buoy.Image) bool { return i.Ref == want || i.Ref == ref })
}

// isRemote says whether an image comes over the network.
func isRemote(ref string) bool {
	for _, local := range []string{"oci:", "oci-archive:", "docker-archive:", "file:"} {
		if strings.HasPrefix(ref, local) {
			return false
		}
	}
	return !isPath(ref)
}

// normalRef spells a reference to a registry as nodes list it: nginx is
// docker.io/library/nginx:latest.
func normalRef(ref string) string {
	if strings.HasPrefix(ref, "http://") || strings.HasPrefix(ref, "https://") {
		return ref
	}
	if strings.HasPrefix(ref, "hub:") {
		if !strings.HasSuffix(ref, ".flist") && !strings.HasSuffix(ref, ".fl") {
			ref += ".flist"
		}
		return ref
	}
	ref = strings.TrimPrefix(ref, "docker://")
	host, rest, ok := strings.Cut(ref, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = "docker.io", ref
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	if host == "docker.io" && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	if last := rest[strings.LastIndexByte(rest, '/')+1:]; !strings.ContainsAny(last, ":@") {
		rest += ":latest"
	}
	return host + "/" + rest
}
