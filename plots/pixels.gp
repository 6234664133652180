# pixels.gp - one picture.
# data: per picture one block of boxes "x1 x2 y1 y2 colour", or where image is 1 of dots
# "x y red green blue". block: index of the picture's block.
unset border
unset xtics
unset ytics
unset grid
set style fill solid 1.0 noborder
if (image) plot data index block using 1:2:3:4:5 with rgbimage notitle
if (!image) plot data index block using (($1+$2)/2):(($3+$4)/2):1:2:3:4:5 \
  with boxxyerror linecolor rgb variable notitle
