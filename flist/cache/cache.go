// Package cache keeps the plain bytes of chunks on the disk, shared by all flists of a node and bounded in size.
package cache
